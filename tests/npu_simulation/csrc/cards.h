// The simulated cards: how many there are, which one a thread uses, their memory and their random numbers.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Allocator.h>
#include <c10/core/Storage.h>

namespace npu_simulation {

constexpr c10::DeviceType NPU = c10::DeviceType::PrivateUse1;
constexpr c10::DeviceIndex MOST_CARDS = 64;

// The cards that ASCEND_RT_VISIBLE_DEVICES leaves of those in the machine. Up to the first use of a card the variable
// may change.
c10::DeviceIndex card_count();
void start_cards();
c10::DeviceIndex current_card();
void set_current_card(c10::DeviceIndex card);
void require_card(c10::DeviceIndex card);

c10::Allocator* card_allocator();

// Memory of a card that is the memory of a CPU storage, which lives on in it.
c10::DataPtr adopt(const c10::Storage& cpu, c10::DeviceIndex card);

const at::Generator& default_generator(c10::DeviceIndex card);

// The CPU generator in which a card's generator keeps its state.
at::Generator cpu_generator(const at::Generator& generator);

// Raises for the element types that a card cannot hold.
void require_supported(c10::ScalarType dtype);

} // namespace npu_simulation

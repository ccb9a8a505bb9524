// What PyTorch asks a device type for: its cards, its generators, its pinned memory, a clock for DDP.
#include "cards.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>

#include <algorithm>
#include <array>
#include <cstring>

namespace npu_simulation {
namespace {

// A card draws the CPU's random numbers, from a state of its own.
struct CardGenerator final : c10::GeneratorImpl {
  CardGenerator(c10::DeviceIndex card, at::Generator state)
      : GeneratorImpl(c10::Device(NPU, card), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        cpu(std::move(state)) {}

  static c10::DeviceType device_type() {
    return NPU;
  }
  void set_current_seed(uint64_t seed) override {
    cpu.set_current_seed(seed);
  }
  void set_offset(uint64_t offset) override {
    cpu.set_offset(offset);
  }
  uint64_t get_offset() const override {
    return cpu.get_offset();
  }
  uint64_t current_seed() const override {
    return cpu.current_seed();
  }
  uint64_t seed() override {
    return cpu.seed();
  }
  void set_state(const c10::TensorImpl& state) override {
    cpu.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return cpu.unsafeGetGeneratorImpl()->get_state();
  }
  CardGenerator* clone_impl() const override {
    return new CardGenerator(device().index(), cpu.clone());
  }

  at::Generator cpu;
};

at::Generator new_generator(c10::DeviceIndex card) {
  return at::make_generator<CardGenerator>(card < 0 ? current_card() : card, at::detail::createCPUGenerator());
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override {
    return true;
  }
  bool isAvailable() const override {
    return card_count() > 0;
  }
  bool hasPrimaryContext(c10::DeviceIndex) const override {
    return true;
  }
  void init() const override {
    start_cards();
  }
  c10::DeviceIndex deviceCount() const override {
    return card_count();
  }
  c10::DeviceIndex getCurrentDevice() const override {
    return current_card();
  }
  void setCurrentDevice(c10::DeviceIndex card) const override {
    set_current_card(card);
  }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex card) const override {
    const auto before = current_card();
    set_current_card(card);
    return before;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex card) const override {
    return exchangeDevice(card);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex card) const override {
    return default_generator(card);
  }
  at::Generator getNewGenerator(c10::DeviceIndex card) const override {
    return new_generator(card);
  }
  bool isPinnedPtr(const void*) const override {
    return false;
  }
  c10::Allocator* getPinnedMemoryAllocator() const override {
    TORCH_CHECK(false, "simulated NPU: pinned memory is not supported");
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    c10::DeviceGuard guard(storage.device());
    auto memory = card_allocator()->allocate(bytes);
    const auto kept = std::min(bytes, storage.nbytes());
    if (kept > 0) {
      std::memcpy(memory.get(), storage.data(), kept);
    }
    storage.set_data_ptr_noswap(std::move(memory));
    storage.set_nbytes(bytes);
  }
};

const bool hooks_registered = [] {
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

} // namespace

const at::Generator& default_generator(c10::DeviceIndex card) {
  static std::array<at::Generator, MOST_CARDS> generators = [] {
    std::array<at::Generator, MOST_CARDS> all;
    for (c10::DeviceIndex i = 0; i < MOST_CARDS; ++i) {
      all[i] = new_generator(i);
    }
    return all;
  }();
  card = card < 0 ? current_card() : card;
  require_card(card);
  return generators[card];
}

at::Generator cpu_generator(const at::Generator& generator) {
  return at::check_generator<CardGenerator>(generator)->cpu;
}

} // namespace npu_simulation

namespace c10d {
namespace {

// Without one DDP warns that it keeps no times.
struct CardTimer final : Timer {
  explicit CardTimer(c10::Device) {}

  std::optional<int64_t> measureDifference(Event start, Event end) override {
    const auto from = getTimestamp(start);
    const auto to = getTimestamp(end);
    return from && to ? std::optional<int64_t>(*to - *from) : std::nullopt;
  }
};

C10_REGISTER_TYPED_CLASS(TimerRegistry, c10::kPrivateUse1, CardTimer)

} // namespace
} // namespace c10d

#include "cards.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <cctype>
#include <cstdlib>
#include <cstring>

namespace npu_simulation {
namespace {

struct Memory {
  std::atomic<int64_t> allocated{0};
  std::atomic<int64_t> peak{0};

  void add(int64_t bytes) {
    const int64_t now = allocated += bytes;
    int64_t before = peak;
    while (now > before && !peak.compare_exchange_weak(before, now)) {
    }
  }
};

std::array<Memory, MOST_CARDS> memories;
std::atomic<int> fixed_count{-1};
thread_local c10::DeviceIndex thread_card = 0;

c10::DeviceIndex count_visible() {
  const char* wanted = std::getenv("NPU_SIMULATION_CARDS");
  const int cards = wanted ? std::atoi(wanted) : 1;
  const char* variable = std::getenv("ASCEND_RT_VISIBLE_DEVICES");
  if (variable == nullptr) {
    return static_cast<c10::DeviceIndex>(cards);
  }
  // CANN's rules: reading stops at the first odd character, ends before the first number that no card has, and
  // numbers that do not ascend leave no card at all.
  int count = 0;
  int last = -1;
  const char* rest = variable;
  while (std::isdigit(static_cast<unsigned char>(*rest))) {
    char* end = nullptr;
    const long card = std::strtol(rest, &end, 10);
    if (card <= last) {
      return 0;
    }
    if (card >= cards) {
      break;
    }
    last = static_cast<int>(card);
    ++count;
    rest = *end == ',' ? end + 1 : "";
  }
  return static_cast<c10::DeviceIndex>(count);
}

struct Block {
  c10::DeviceIndex card;
  int64_t bytes;
  void* memory; // freed with the block, unless `cpu` owns it
  c10::Storage cpu;
};

void free_block(void* context) {
  auto* block = static_cast<Block*>(context);
  memories[block->card].allocated -= block->bytes;
  c10::free_cpu(block->memory);
  delete block;
}

struct CardAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    start_cards();
    const auto card = current_card();
    require_card(card);
    void* memory = bytes == 0 ? nullptr : c10::alloc_cpu(bytes);
    memories[card].add(static_cast<int64_t>(bytes));
    auto* block = new Block{card, static_cast<int64_t>(bytes), memory, c10::Storage()};
    return {memory, block, &free_block, c10::Device(NPU, card)};
  }
  c10::DeleterFnPtr raw_deleter() const override {
    return nullptr; // the context is not the memory
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

CardAllocator the_allocator;
REGISTER_ALLOCATOR(NPU, &the_allocator);

// Everything is done when a call returns, so streams and events have nothing to do.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override {
    return NPU;
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override {
    return {NPU, thread_card};
  }
  void setDevice(c10::Device device) const override {
    if (device.index() >= 0) {
      set_current_card(device.index());
    }
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) {
      thread_card = device.index();
    }
  }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return getStream(device);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getStream(device);
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    return getStream(device);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return getStream(stream.device());
  }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override {
    return true;
  }
  bool queryStream(const c10::Stream&) const override {
    return true;
  }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  c10::DeviceIndex deviceCount() const noexcept override {
    return card_count();
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

} // namespace

c10::DeviceIndex card_count() {
  const int fixed = fixed_count;
  return fixed < 0 ? count_visible() : static_cast<c10::DeviceIndex>(fixed);
}

void start_cards() {
  if (fixed_count < 0) {
    fixed_count = count_visible();
  }
}

c10::DeviceIndex current_card() {
  return thread_card;
}

void require_card(c10::DeviceIndex card) {
  TORCH_CHECK(
      card >= 0 && card < card_count(),
      "simulated NPU: invalid device ordinal ", static_cast<int>(card), ", there are ",
      static_cast<int>(card_count()), " cards");
}

void set_current_card(c10::DeviceIndex card) {
  start_cards();
  require_card(card);
  thread_card = card;
}

c10::Allocator* card_allocator() {
  return &the_allocator;
}

c10::DataPtr adopt(const c10::Storage& cpu, c10::DeviceIndex card) {
  start_cards();
  const auto bytes = static_cast<int64_t>(cpu.nbytes());
  memories[card].add(bytes);
  return {cpu.mutable_data(), new Block{card, bytes, nullptr, cpu}, &free_block, c10::Device(NPU, card)};
}

void require_supported(c10::ScalarType dtype) {
  TORCH_CHECK(dtype != c10::kDouble, "simulated NPU: float64 is not supported");
  TORCH_CHECK(dtype != c10::kComplexDouble, "simulated NPU: complex128 is not supported");
}

TORCH_LIBRARY(npu_simulation, m) {
  m.def("start() -> ()", &start_cards);
  m.def("card_count() -> int", [] { return static_cast<int64_t>(card_count()); });
  m.def("current_card() -> int", [] { return static_cast<int64_t>(current_card()); });
  m.def("set_card(int card) -> ()", [](int64_t card) { set_current_card(static_cast<c10::DeviceIndex>(card)); });
  m.def("generator(int card) -> Generator?", [](int64_t card) {
    return default_generator(static_cast<c10::DeviceIndex>(card));
  });
  m.def("allocated(int card) -> int", [](int64_t card) { return memories.at(card).allocated.load(); });
  m.def("peak(int card) -> int", [](int64_t card) { return memories.at(card).peak.load(); });
  m.def("reset_peak(int card) -> ()", [](int64_t card) {
    memories.at(card).peak = memories.at(card).allocated.load();
  });
  m.def("memory(Tensor self) -> Tensor");
}

} // namespace npu_simulation

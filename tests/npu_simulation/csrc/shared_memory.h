// A card's tensors and the CPU tensors that share their memory.
#pragma once

#include "cards.h"

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

namespace npu_simulation {

using at::Tensor;

inline bool is_half(const Tensor& tensor) {
  return tensor.scalar_type() == at::kHalf || tensor.scalar_type() == at::kBFloat16;
}

inline const auto& raw_data(const c10::Storage& storage) {
  return storage.unsafeGetStorageImpl()->_mutable_data_ptr_no_checks();
}

// A CPU storage over a card's memory, which it keeps alive.
inline c10::Storage share(const c10::Storage& storage) {
  auto* owner = new c10::Storage(storage);
  c10::DataPtr memory(
      raw_data(storage).get(), owner, [](void* kept) { delete static_cast<c10::Storage*>(kept); }, at::kCPU);
  return {c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(memory), c10::GetAllocator(at::kCPU), true};
}

inline Tensor with_storage(const Tensor& like, c10::Storage storage, c10::DispatchKey key) {
  auto tensor =
      at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), like.dtype());
  auto* meta = tensor.unsafeGetTensorImpl();
  meta->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  if (like.unsafeGetTensorImpl()->is_wrapped_number()) {
    meta->set_wrapped_number(true);
  }
  return tensor;
}

inline Tensor memory(const Tensor& tensor) {
  TORCH_CHECK(tensor.device().type() == NPU, "simulated NPU: expected a tensor on a card, got ", tensor.device());
  return with_storage(tensor, share(tensor.storage()), c10::DispatchKey::CPU);
}

// One operator's tensors, on both sides.
class Call {
 public:
  explicit Call(bool in_float32) : in_float32(in_float32) {}

  void see(const Tensor& tensor) {
    if (tensor.defined() && tensor.device().type() == NPU) {
      see(tensor.device());
    }
  }

  void see(c10::Device device) {
    if (device.type() != NPU) {
      return;
    }
    const auto index = device.has_index() ? device.index() : current_card();
    TORCH_CHECK(
        card < 0 || card == index,
        "Expected all tensors to be on the same device, but found at least two devices, npu:",
        static_cast<int>(card), " and npu:", static_cast<int>(index), "!");
    card = index;
  }

  Tensor to_cpu(const Tensor& tensor, bool written, bool takes_cpu) {
    if (!tensor.defined()) {
      return tensor;
    }
    if (tensor.device().type() != NPU) {
      TORCH_CHECK(
          takes_cpu || (tensor.dim() == 0 && !written),
          "Expected all tensors to be on the same device, but found at least two devices, ", tensor.device(),
          " and npu:", static_cast<int>(card), "!");
      return tensor;
    }
    auto cpu = with_storage(tensor, shared(tensor.storage()), c10::DispatchKey::CPU);
    const bool converted = in_float32 && is_half(cpu);
    auto given = converted ? cpu.to(at::kFloat) : cpu;
    arguments.push_back({tensor, cpu, given, written});
    return given;
  }

  // A card's tensor for what the CPU kernel returned: an argument, a view of one, or a new tensor.
  Tensor to_npu(const Tensor& result) {
    if (!result.defined()) {
      return result;
    }
    for (const auto& argument : arguments) {
      if (result.is_same(argument.given)) {
        return argument.npu;
      }
    }
    const auto tensor = rounds && result.scalar_type() == at::kFloat ? result.to(rounded) : result;
    require_supported(tensor.scalar_type());
    const auto* storage = tensor.storage().unsafeGetStorageImpl();
    for (const auto& [npu, cpu] : storages) {
      if (cpu.unsafeGetStorageImpl() == storage) {
        return with_storage(tensor, npu, c10::DispatchKey::PrivateUse1);
      }
    }
    c10::Storage npu(
        c10::Storage::use_byte_size_t(), tensor.storage().nbytes(), adopt(tensor.storage(), card),
        card_allocator(), true);
    storages.emplace_back(npu, tensor.storage());
    return with_storage(tensor, npu, c10::DispatchKey::PrivateUse1);
  }

  // Bring what a kernel did to its written arguments, besides writing into their memory, to the card's tensors.
  void finish() {
    for (auto& [npu, cpu, given, written] : arguments) {
      if (!written) {
        continue;
      }
      if (!given.is_same(cpu)) {
        cpu.resize_(given.sizes()).copy_(given);
      }
      const auto& before = npu.storage();
      if (raw_data(cpu.storage()).get() != raw_data(before).get()) {
        before.set_data_ptr_noswap(adopt(cpu.storage(), card));
        before.set_nbytes(cpu.storage().nbytes());
      }
      if (npu.sizes() != cpu.sizes() || npu.strides() != cpu.strides()) {
        npu.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
      }
    }
  }

  void round_results_like(const Tensor& tensor) {
    if (in_float32 && tensor.defined() && is_half(tensor)) {
      rounds = true;
      rounded = tensor.scalar_type();
    }
  }

  c10::DeviceIndex card = -1;

 private:
  struct Argument {
    Tensor npu;
    Tensor cpu;
    Tensor given; // what the kernel gets: `cpu`, or its float32 copy
    bool written;
  };

  c10::Storage shared(const c10::Storage& storage) {
    for (const auto& [npu, cpu] : storages) {
      if (npu.unsafeGetStorageImpl() == storage.unsafeGetStorageImpl()) {
        return cpu;
      }
    }
    storages.emplace_back(storage, share(storage));
    return storages.back().second;
  }

  const bool in_float32;
  bool rounds = false;
  at::ScalarType rounded = at::kFloat;
  std::vector<Argument> arguments;
  std::vector<std::pair<c10::Storage, c10::Storage>> storages; // the card's and the CPU's
};

} // namespace npu_simulation

// Operators of the simulated cards: CPU kernels on CPU tensors that share the card's memory, nothing is copied.
#include "shared_memory.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_local_scalar_dense_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_to_copy_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <optional>

namespace npu_simulation {
namespace {

using torch::jit::Stack;

template <class Action>
void for_each_tensor(const c10::IValue& value, Action&& action) {
  if (value.isTensor()) {
    action(value.toTensor());
  } else if (value.isTensorList()) {
    for (const Tensor& tensor : value.toTensorList()) {
      action(tensor);
    }
  } else if (value.isOptionalTensorList()) {
    for (const std::optional<Tensor>& tensor : value.toOptionalTensorList()) {
      if (tensor.has_value()) {
        action(*tensor);
      }
    }
  }
}

template <class Change>
void change_tensors(c10::IValue& value, Change&& change) {
  if (value.isTensor()) {
    value = change(value.toTensor());
  } else if (value.isTensorList()) {
    c10::List<Tensor> changed;
    for (const Tensor& tensor : value.toTensorList()) {
      changed.push_back(change(tensor));
    }
    value = std::move(changed);
  } else if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> changed;
    for (const std::optional<Tensor>& tensor : value.toOptionalTensorList()) {
      changed.push_back(tensor.has_value() ? std::optional<Tensor>(change(*tensor)) : std::nullopt);
    }
    value = std::move(changed);
  }
}

// While one lives, a kernel that can only draw from the CPU's default generator draws the card's numbers from it.
struct CardRandomNumbers {
  explicit CardRandomNumbers(c10::DeviceIndex card)
      : used(at::detail::getDefaultCPUGenerator()), card(cpu_generator(default_generator(card))), before(used.clone()) {
    used.set_state(this->card.get_state());
  }
  ~CardRandomNumbers() {
    card.set_state(used.get_state());
    used.set_state(before.get_state());
  }
  at::Generator used;
  at::Generator card;
  at::Generator before;
};

template <bool in_float32>
void run(const c10::OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  const auto& arguments = schema.arguments();
  const auto first = stack->size() - arguments.size();
  Call call(in_float32);
  for (size_t i = 0; i < arguments.size(); ++i) {
    const auto& value = (*stack)[first + i];
    for_each_tensor(value, [&](const Tensor& tensor) {
      call.see(tensor);
      call.round_results_like(tensor);
    });
    if (value.isDevice()) {
      call.see(value.toDevice());
    }
  }
  TORCH_CHECK(call.card >= 0, "simulated NPU: ", schema.name(), " names no card");

  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  bool takes_generator = false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = (*stack)[first + i];
    const auto* alias = arguments[i].alias_info();
    const bool written = alias != nullptr && alias->isWrite();
    const bool takes_cpu = value.isOptionalTensorList(); // indices, which may stay on the CPU with every device
    change_tensors(value, [&](const Tensor& tensor) { return call.to_cpu(tensor, written, takes_cpu); });
    if (value.isDevice()) {
      value = c10::Device(at::kCPU);
    }
    if (arguments[i].name() == "generator") {
      takes_generator = true;
      value = cpu_generator(value.isNone() ? default_generator(call.card) : value.toGenerator());
    }
  }
  std::optional<CardRandomNumbers> drawn;
  if (!takes_generator && op.hasTag(at::Tag::nondeterministic_seeded)) {
    drawn.emplace(call.card);
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);

  drawn.reset();
  for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i) {
    change_tensors((*stack)[i], [&](const Tensor& tensor) { return call.to_npu(tensor); });
  }
  call.finish();
}

// torch_npu: "NPU contiguous operator only supported contiguous memory format."
void require_contiguous(std::optional<at::MemoryFormat> format) {
  TORCH_CHECK(
      format != at::MemoryFormat::ChannelsLast, "simulated NPU: only the contiguous memory format is supported");
}

Tensor contiguous(const Tensor& self, at::MemoryFormat format) {
  require_contiguous(format);
  return self.is_contiguous() ? self : self.clone(format);
}

Tensor to_copy(
    const Tensor& self,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> layout,
    std::optional<at::Device> device,
    std::optional<bool> pin_memory,
    bool non_blocking,
    std::optional<at::MemoryFormat> format) {
  require_contiguous(format);
  return at::native::_to_copy(self, dtype, layout, device, pin_memory, non_blocking, format);
}

Tensor empty(
    at::IntArrayRef size,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> layout,
    std::optional<at::Device> device,
    std::optional<bool> pin_memory,
    std::optional<at::MemoryFormat> format) {
  const auto type = c10::dtype_or_default(dtype);
  require_supported(type);
  TORCH_CHECK(!pin_memory.value_or(false), "simulated NPU: pinned memory is not supported");
  TORCH_CHECK(c10::layout_or_default(layout) == at::kStrided, "simulated NPU: only strided tensors are supported");
  require_contiguous(format);
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(
      size, card_allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type, format);
}

Tensor empty_strided(
    at::IntArrayRef size,
    at::IntArrayRef stride,
    std::optional<at::ScalarType> dtype,
    std::optional<at::Layout> layout,
    std::optional<at::Device> device,
    std::optional<bool> pin_memory) {
  const auto type = c10::dtype_or_default(dtype);
  require_supported(type);
  TORCH_CHECK(!pin_memory.value_or(false), "simulated NPU: pinned memory is not supported");
  const c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(
      size, stride, card_allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), type);
}

Tensor readable(const Tensor& tensor) {
  return tensor.device().type() == NPU ? memory(tensor) : tensor;
}

Tensor copy_from(const Tensor& self, const Tensor& to, bool non_blocking) {
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  readable(to).copy_(readable(self), non_blocking);
  return to;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& to) {
  to.resize_(self.sizes());
  return copy_from(self, to, false);
}

const Tensor& resize_(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(self.device());
  return at::native::resize_(self, size, format);
}

Tensor& set_storage_(
    Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  const c10::DeviceGuard guard(self.device());
  return at::native::set_storage_cpu_(self, std::move(source), offset, size, stride);
}

Tensor& set_empty_(Tensor& self) {
  const c10::DeviceGuard guard(self.device());
  c10::Storage storage(c10::Storage::use_byte_size_t(), 0, card_allocator()->allocate(0), card_allocator(), true);
  return set_storage_(self, std::move(storage), 0, {0}, {});
}

at::Scalar local_scalar(const Tensor& self) {
  return memory(self).item();
}

} // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&run<false>>());
}

TORCH_LIBRARY_IMPL(npu_simulation, PrivateUse1, m) {
  m.impl("memory", &memory);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_to_copy", &to_copy);
  m.impl("contiguous", &contiguous);
  m.impl("_local_scalar_dense", &local_scalar);
  m.impl("resize_", &resize_);
  m.impl("set_", &set_empty_);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset", &set_storage_);
  m.impl("view", &at::native::view);
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  // PyTorch's general convolution would choose by device, and not the CPU's. Half precision accumulates in float32 as
  // in a cube unit, also where the CPU has no float16 convolution.
  for (const char* name :
       {"convolution", "convolution_backward", "addmm", "addmm.out", "mm", "mm.out", "bmm", "bmm.out", "baddbmm",
        "baddbmm.out", "addmv", "addmv.out", "mv", "dot"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run<true>>());
  }
}

} // namespace npu_simulation

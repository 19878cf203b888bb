// The operators as custom operators of onnxruntime, by its C API.

#include <onnxruntime_c_api.h>
#include <sched.h>

#include <cstdlib>
#include <list>
#include <mutex>

#include "runtimes/operators.h"

namespace sa_layers::runtimes {
namespace {

// The oldest version of the API with parallel loops. Later libraries support it.
constexpr uint32_t kApiVersion = 17;
static_assert(ORT_API_VERSION >= kApiVersion, "the header of onnxruntime must be that of 1.17 or later");

const OrtApi* api = nullptr;

void check(OrtStatus* status) {
  if (status == nullptr) return;
  const std::string message = api->GetErrorMessage(status);
  api->ReleaseStatus(status);
  throw std::runtime_error(message);
}

// Calls body, and returns what it throws as a status.
template <typename Body>
OrtStatus* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return api->CreateStatus(ORT_FAIL, error.what());
  }
}

int64_t available_cores() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

// The threads of a session are not part of the API, so whoever registers the library may pass their number on.
int64_t threads_of(const OrtSessionOptions* options) {
  constexpr const char* kKey = "sa_layers.threads";
  int is_set = 0;
  check(api->HasSessionConfigEntry(options, kKey, &is_set));
  char text[16] = "";
  size_t size = sizeof(text);
  if (is_set) check(api->GetSessionConfigEntry(options, kKey, text, &size));
  const long threads = std::strtol(text, nullptr, 10);
  return threads > 0 ? threads : available_cores();
}

class OnnxruntimeHost : public Host {
 public:
  OnnxruntimeHost(OrtKernelContext* context, int64_t threads) : context_(context), threads_(threads) {}

  int64_t threads() const override { return threads_; }
  void parallel(int64_t count, const std::function<void(int64_t)>& body) override {
    const auto call = [](void* function, size_t index) {
      (*static_cast<const std::function<void(int64_t)>*>(function))(static_cast<int64_t>(index));
    };
    check(api->KernelContext_ParallelFor(context_, call, static_cast<size_t>(count), 0,
                                         const_cast<std::function<void(int64_t)>*>(&body)));
  }
  float* allocate_result(const std::vector<int64_t>& shape) override {
    OrtValue* output = nullptr;
    check(api->KernelContext_GetOutput(context_, 0, shape.data(), shape.size(), &output));
    return data_of(output);
  }

  Inputs inputs() const {
    size_t count = 0;
    check(api->KernelContext_GetInputCount(context_, &count));
    Inputs all;
    for (size_t i = 0; i < count; ++i) {
      const OrtValue* input = nullptr;
      check(api->KernelContext_GetInput(context_, i, &input));
      OrtTensorTypeAndShapeInfo* info = nullptr;
      check(api->GetTensorTypeAndShape(input, &info));
      size_t dimensions = 0;
      check(api->GetDimensionsCount(info, &dimensions));
      Integers shape(dimensions);
      check(api->GetDimensions(info, shape.data(), dimensions));
      api->ReleaseTensorTypeAndShapeInfo(info);
      all.emplace_back(data_of(const_cast<OrtValue*>(input)), shape);
    }
    return all;
  }

 private:
  static float* data_of(OrtValue* value) {
    void* data = nullptr;
    check(api->GetTensorMutableData(value, &data));
    return static_cast<float*>(data);
  }

  OrtKernelContext* context_;
  int64_t threads_;
};

// Reads the attributes of a node.
class AttributeReader {
 public:
  explicit AttributeReader(const OrtKernelInfo* info) : info_(info) {}

  void operator()(const char* name, int64_t& value) const {
    check(api->KernelInfoGetAttribute_int64(info_, name, &value));
  }
  void operator()(const char* name, std::string& value) const {
    size_t size = 0;
    check(api->KernelInfoGetAttribute_string(info_, name, nullptr, &size));
    value.resize(size);  // with the zero at the end
    check(api->KernelInfoGetAttribute_string(info_, name, value.data(), &size));
    value.resize(size - 1);
  }
  void operator()(const char* name, Integers& value) const {
    size_t size = 0;
    check(api->KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size));
    value.resize(size);
    check(api->KernelInfoGetAttributeArray_int64(info_, name, value.data(), &size));
  }

 private:
  const OrtKernelInfo* info_;
};

// An operator with any number of float32 inputs and one output.
template <typename Operator>
struct CustomOperator : OrtCustomOp {
  struct Kernel {
    Operator node;
    int64_t threads;
  };

  int64_t threads;

  explicit CustomOperator(int64_t threads) : OrtCustomOp{}, threads(threads) {
    version = kApiVersion;
    OrtCustomOp::GetName = [](const OrtCustomOp*) { return Operator::kName; };
    GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
    GetInputTypeCount = GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
    GetInputType = GetOutputType = [](const OrtCustomOp*, size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
    GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_VARIADIC; };
    GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
    GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
    GetVariadicInputMinArity = GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
    GetVariadicInputHomogeneity = GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
    GetStartVersion = [](const OrtCustomOp*) { return 1; };
    GetEndVersion = [](const OrtCustomOp*) { return 1; };
    CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info, void** kernel) {
      return guarded([&] {
        auto created = std::make_unique<Kernel>(Kernel{{}, static_cast<const CustomOperator*>(self)->threads});
        created->node.visit(AttributeReader(info));
        *kernel = created.release();
      });
    };
    KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
      return guarded([&] {
        const auto& [node, threads] = *static_cast<const Kernel*>(kernel);
        OnnxruntimeHost host(context, threads);
        run(node, host.inputs(), host);
      });
    };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  }
};

// The operators of the sessions that are made with the same options.
struct Domain {
  CustomOperator<Projection> projection;
  CustomOperator<PairwiseAttention> pairwise_attention;
  CustomOperator<PatchwiseAttention> patchwise_attention;
  OrtCustomOpDomain* domain = nullptr;

  explicit Domain(int64_t threads) : projection(threads), pairwise_attention(threads), patchwise_attention(threads) {
    check(api->CreateCustomOpDomain("sa_layers", &domain));
    for (OrtCustomOp* const custom :
         std::initializer_list<OrtCustomOp*>{&projection, &pairwise_attention, &patchwise_attention}) {
      check(api->CustomOpDomain_Add(domain, custom));
    }
  }
};

}  // namespace
}  // namespace sa_layers::runtimes

// Called by onnxruntime's register_custom_ops_library.
extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  using namespace sa_layers::runtimes;
  static std::mutex mutex;
  static auto& domains = *new std::list<Domain>;  // never destroyed: sessions may end after static variables
  const std::lock_guard<std::mutex> lock(mutex);
  api = base->GetApi(kApiVersion);
  return guarded([&] {
    Domain& domain = domains.emplace_back(threads_of(options));
    check(api->AddCustomOpDomain(options, domain.domain));
  });
}

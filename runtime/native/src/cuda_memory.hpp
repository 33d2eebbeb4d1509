// CUDA's handles and memory with C++ lifetimes.
#pragma once

#include "error.hpp"

#include <cuda_runtime_api.h>
#include <cstddef>
#include <string>

namespace derain {

inline void check_cuda(cudaError_t status, const char *what) {
    if (status == cudaSuccess) return;
    const derain_status kind = status == cudaErrorMemoryAllocation ? DERAIN_NO_MEMORY : DERAIN_BACKEND;
    throw Error(kind, std::string("CUDA cannot ") + what + " (" + cudaGetErrorString(status) + ")");
}

class CudaStream {
  public:
    CudaStream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream"); }
    ~CudaStream() { cudaStreamDestroy(stream_); }
    CudaStream(const CudaStream &) = delete;
    CudaStream &operator=(const CudaStream &) = delete;

    cudaStream_t get() const { return stream_; }
    void wait() const { check_cuda(cudaStreamSynchronize(stream_), "finish the inference"); }

  private:
    cudaStream_t stream_ = nullptr;
};

// A recorded sequence of kernels, which costs less to start than the kernels one by one.
class CudaGraph {
  public:
    CudaGraph() = default;
    ~CudaGraph() { reset(); }
    CudaGraph(const CudaGraph &) = delete;
    CudaGraph &operator=(const CudaGraph &) = delete;

    explicit operator bool() const { return graph_ != nullptr; }

    void reset() {
        if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
        graph_ = nullptr;
    }

    // Record what `enqueue` puts into the stream; false if it cannot be recorded.
    template <typename Enqueue>
    bool record(const CudaStream &stream, Enqueue enqueue) {
        reset();
        cudaGraph_t recorded = nullptr;
        if (cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal) != cudaSuccess) return false;
        const bool enqueued = enqueue();
        const bool ended = cudaStreamEndCapture(stream.get(), &recorded) == cudaSuccess;
        if (enqueued && ended && cudaGraphInstantiate(&graph_, recorded, 0) != cudaSuccess) graph_ = nullptr;
        if (recorded != nullptr) cudaGraphDestroy(recorded);
        cudaGetLastError();  // a failed recording leaves an error behind, which is answered here
        return graph_ != nullptr;
    }

    void launch(const CudaStream &stream) const {
        check_cuda(cudaGraphLaunch(graph_, stream.get()), "start the recorded inference");
    }

  private:
    cudaGraphExec_t graph_ = nullptr;
};

// One tensor's memory as host and GPU see it: page-locked memory beside memory of the GPU, or, on a GPU that shares the
// host's memory, one block for both, so that nothing has to be copied.
class TensorMemory {
  public:
    TensorMemory() = default;
    ~TensorMemory() { release(); }
    TensorMemory(const TensorMemory &) = delete;
    TensorMemory &operator=(const TensorMemory &) = delete;

    void resize(size_t bytes, bool shared) {
        release();
        bytes_ = bytes;
        shared_ = shared;
        check_cuda(cudaHostAlloc(&host_, bytes, shared ? cudaHostAllocMapped : cudaHostAllocDefault),
                   "lock host memory for a frame");
        if (shared) {
            check_cuda(cudaHostGetDevicePointer(&device_, host_, 0), "share host memory with the GPU");
        } else {
            check_cuda(cudaMalloc(&device_, bytes), "take GPU memory for a frame");
        }
    }

    void *host() const { return host_; }
    void *device() const { return device_; }
    size_t bytes() const { return bytes_; }

    void upload(const CudaStream &stream) const {
        if (shared_) return;
        check_cuda(cudaMemcpyAsync(device_, host_, bytes_, cudaMemcpyHostToDevice, stream.get()), "copy a frame in");
    }

    void download(const CudaStream &stream) const {
        if (shared_) return;
        check_cuda(cudaMemcpyAsync(host_, device_, bytes_, cudaMemcpyDeviceToHost, stream.get()), "copy a frame out");
    }

  private:
    void release() {
        if (device_ != nullptr && !shared_) cudaFree(device_);
        if (host_ != nullptr) cudaFreeHost(host_);
        host_ = device_ = nullptr;
    }

    void *host_ = nullptr, *device_ = nullptr;
    size_t bytes_ = 0;
    bool shared_ = false;
};

}  // namespace derain

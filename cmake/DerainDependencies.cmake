# Finds what libderain is built with. Packages installed by pip tell where they are through Python.

find_package(Threads REQUIRED)
find_package(Python3 COMPONENTS Interpreter QUIET)

# The folder of a Python package, empty if it is not installed.
function(derain_python_folder package result)
  set(folder "")
  if(Python3_Interpreter_FOUND)
    execute_process(
      COMMAND ${Python3_EXECUTABLE} -c
              "import importlib.util, os; s = importlib.util.find_spec('${package}'); print(os.path.dirname(s.origin))"
      OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

# JSON: Debian's nlohmann-json3-dev, or the headers of the pip package nlohmann-json.
find_package(nlohmann_json 3.10 QUIET)
if(NOT nlohmann_json_FOUND)
  derain_python_folder(nlohmann_json folder)
  if(NOT EXISTS "${folder}/include/nlohmann/json.hpp")
    message(FATAL_ERROR "nlohmann/json.hpp was not found. "
                        "Install it: apt install nlohmann-json3-dev, or pip install nlohmann-json")
  endif()
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json INTERFACE "${folder}/include")
endif()

set(DERAIN_BACKENDS "")

# OpenVINO: the system's, or the pip package, which brings headers and its CMake files.
set(DERAIN_HAS_OPENVINO OFF)
if(NOT DERAIN_OPENVINO STREQUAL "OFF")
  find_package(OpenVINO QUIET COMPONENTS Runtime ONNX)
  if(NOT OpenVINO_FOUND AND NOT CMAKE_CROSSCOMPILING)  # this machine's package is not the other one's
    derain_python_folder(openvino folder)
    if(EXISTS "${folder}/cmake/OpenVINOConfig.cmake")
      find_package(OpenVINO QUIET COMPONENTS Runtime ONNX PATHS "${folder}/cmake" NO_DEFAULT_PATH)
    endif()
  endif()
  if(OpenVINO_FOUND)
    set(DERAIN_HAS_OPENVINO ON)
    list(APPEND DERAIN_BACKENDS "openvino ${OpenVINO_VERSION}")
  elseif(DERAIN_OPENVINO STREQUAL "ON")
    message(FATAL_ERROR "OpenVINO was not found. Install it: pip install openvino, or set OpenVINO_DIR")
  endif()
endif()

# ONNX Runtime: its pip package has no headers. ONNXRUNTIME_ROOT names an unpacked release of its C and C++ libraries.
set(DERAIN_HAS_ONNXRUNTIME OFF)
if(NOT DERAIN_ONNXRUNTIME STREQUAL "OFF")
  find_path(ONNXRUNTIME_INCLUDE_DIR onnxruntime_c_api.h HINTS ${ONNXRUNTIME_ROOT}
            PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session)
  find_library(ONNXRUNTIME_LIBRARY onnxruntime HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES lib)
  if(ONNXRUNTIME_INCLUDE_DIR AND ONNXRUNTIME_LIBRARY)
    set(DERAIN_HAS_ONNXRUNTIME ON)
    list(APPEND DERAIN_BACKENDS onnxruntime)
  elseif(DERAIN_ONNXRUNTIME STREQUAL "ON")
    message(FATAL_ERROR "ONNX Runtime was not found (header: ${ONNXRUNTIME_INCLUDE_DIR}, library: "
                        "${ONNXRUNTIME_LIBRARY}). Unpack a release of it and set ONNXRUNTIME_ROOT")
  else()
    message(STATUS "Left out: the backend onnxruntime (set ONNXRUNTIME_ROOT to an unpacked release of ONNX Runtime)")
  endif()
endif()

# TensorRT: of JetPack or NVIDIA's packages. TENSORRT_ROOT names an unpacked tar file.
set(DERAIN_HAS_TENSORRT OFF)
if(NOT DERAIN_TENSORRT STREQUAL "OFF")
  find_package(CUDAToolkit QUIET)
  find_path(TENSORRT_INCLUDE_DIR NvInfer.h HINTS ${TENSORRT_ROOT} PATH_SUFFIXES include)
  find_library(TENSORRT_LIBRARY nvinfer HINTS ${TENSORRT_ROOT} PATH_SUFFIXES lib)
  if(CUDAToolkit_FOUND AND TENSORRT_INCLUDE_DIR AND TENSORRT_LIBRARY)
    set(DERAIN_HAS_TENSORRT ON)
    list(APPEND DERAIN_BACKENDS tensorrt)
  elseif(DERAIN_TENSORRT STREQUAL "ON")
    message(FATAL_ERROR "TensorRT was not found (headers: ${TENSORRT_INCLUDE_DIR}, library: ${TENSORRT_LIBRARY}, "
                        "CUDA: ${CUDAToolkit_FOUND}). Install JetPack's tensorrt packages, or set TENSORRT_ROOT")
  endif()
endif()

set(DERAIN_HAS_GSTREAMER OFF)
if(NOT DERAIN_GSTREAMER STREQUAL "OFF")
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(GSTREAMER QUIET IMPORTED_TARGET gstreamer-1.0>=1.16 gstreamer-app-1.0>=1.16
                      gstreamer-video-1.0>=1.16)
  endif()
  if(GSTREAMER_FOUND)
    set(DERAIN_HAS_GSTREAMER ON)
  elseif(DERAIN_GSTREAMER STREQUAL "ON")
    message(FATAL_ERROR "GStreamer was not found. "
                        "Install it: apt install libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev")
  endif()
endif()

if(NOT DERAIN_BACKENDS)
  set(DERAIN_BACKENDS "none")
endif()

# Cross-compiling for 64-bit ARM, such as a Jetson, with Debian's or Ubuntu's g++-aarch64-linux-gnu:
#
#   cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
#
# With qemu-user-static installed, ctest runs what was built.
# Add -DCMAKE_SYSROOT=FOLDER with a copy of the device's file system to find its TensorRT, CUDA and GStreamer.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
find_program(DERAIN_EMULATOR NAMES qemu-aarch64-static qemu-aarch64)
if(DERAIN_EMULATOR)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${DERAIN_EMULATOR} -L /usr/aarch64-linux-gnu)
endif()
if(CMAKE_SYSROOT)
  set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
  set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
  set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
  set(ENV{PKG_CONFIG_SYSROOT_DIR} ${CMAKE_SYSROOT})
  set(ENV{PKG_CONFIG_LIBDIR} ${CMAKE_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig)
else()
  # Without the device's files, engines and GStreamer found here are this machine's.
  set(DERAIN_OPENVINO OFF CACHE STRING "")
  set(DERAIN_ONNXRUNTIME OFF CACHE STRING "")
  set(DERAIN_TENSORRT OFF CACHE STRING "")
  set(DERAIN_GSTREAMER OFF CACHE STRING "")
endif()

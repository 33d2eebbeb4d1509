# Installing: the library, its header, find_package(derain), pkg-config, the tool and the GStreamer plugin; and packing
# that into a .deb and a .tar.gz (`cpack` in the build folder). Configure with -DCMAKE_INSTALL_PREFIX=/usr for a .deb, so
# that the plugin goes where the system's GStreamer looks.
include(CMakePackageConfigHelpers)

# The installed library finds its engine where this build found it: an engine from pip lies in no system folder. Build
# packages for other machines with -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=OFF and the engine from the system's packages.
if(NOT DEFINED CMAKE_INSTALL_RPATH_USE_LINK_PATH)
  set(CMAKE_INSTALL_RPATH_USE_LINK_PATH ON)
endif()
set_target_properties(derain PROPERTIES INSTALL_RPATH_USE_LINK_PATH ${CMAKE_INSTALL_RPATH_USE_LINK_PATH})
if(CMAKE_INSTALL_RPATH_USE_LINK_PATH AND TARGET openvino::runtime)
  # By itself CMake leaves out folders inside the source tree, and a virtual environment often lies there.
  set_target_properties(derain PROPERTIES INSTALL_RPATH "$<TARGET_FILE_DIR:openvino::runtime>")
endif()
set_target_properties(derain-native PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")

set(config_folder ${CMAKE_INSTALL_LIBDIR}/cmake/derain)
install(TARGETS derain EXPORT derain-targets
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} PUBLIC_HEADER DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS derain-native RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(EXPORT derain-targets NAMESPACE derain:: FILE derain-config.cmake DESTINATION ${config_folder})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/derain-config-version.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_BINARY_DIR}/derain-config-version.cmake DESTINATION ${config_folder})
install(FILES LICENSE NOTICE DESTINATION ${CMAKE_INSTALL_DOCDIR})
if(DERAIN_HAS_GSTREAMER)
  set_target_properties(gstderain PROPERTIES INSTALL_RPATH "$ORIGIN/..")
  install(TARGETS gstderain LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/gstreamer-1.0)
endif()

# From the pkg-config file up to the prefix, so that the folder can be moved.
file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/derain.pc.in derain.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/derain.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_NAME libderain)
set(CPACK_PACKAGE_CONTACT "The derain developers")
set(CPACK_PACKAGE_VENDOR "derain")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
file(WRITE ${CMAKE_BINARY_DIR}/triggers "activate-noawait ldconfig\n")  # the loader then knows the library
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_BINARY_DIR}/triggers)
# An engine from pip or an unpacked tar file belongs to no Debian package, so these are stated and not searched for. What
# is built here may need the C and C++ libraries of this system or newer ones.
set(depends "")
foreach(package libc6 libstdc++6)
  execute_process(COMMAND dpkg-query --show --showformat "\${Version}" ${package}
                  OUTPUT_VARIABLE version ERROR_QUIET RESULT_VARIABLE unknown)
  if(unknown OR CMAKE_CROSSCOMPILING)
    list(APPEND depends "${package}")
  else()
    string(REGEX REPLACE "-.*" "" version "${version}")
    list(APPEND depends "${package} (>= ${version})")
  endif()
endforeach()
if(DERAIN_HAS_GSTREAMER)
  list(APPEND depends "libgstreamer1.0-0 (>= 1.16)" "libgstreamer-plugins-base1.0-0 (>= 1.16)")
  set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "gstreamer1.0-plugins-base, gstreamer1.0-plugins-good")
  set(CPACK_DEBIAN_PACKAGE_SUGGESTS "gstreamer1.0-libav, gstreamer1.0-plugins-ugly")
endif()
list(JOIN depends ", " CPACK_DEBIAN_PACKAGE_DEPENDS)
include(CPack)

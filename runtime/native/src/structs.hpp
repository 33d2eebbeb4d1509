// Structures that begin with struct_size: read as far as the caller's version of the header knew them, and no further.
#pragma once

#include "error.hpp"

#include <algorithm>
#include <cstring>
#include <string>

namespace derain {

// Sizes in version 0.1: below them, struct_size was never set. Specialise it to the old size when a field is appended.
template <typename T>
constexpr size_t kFirstSize = sizeof(T);

// The end of the name of the function that sets it.
template <typename T>
constexpr const char *kSetter = "_init";
template <>
inline constexpr const char *kSetter<derain_options> = "_default";
template <>
inline constexpr const char *kSetter<derain_request> = "_default";

template <typename T>
void check_struct(const T *given, const char *name) {
    if (given == nullptr) throw Error(DERAIN_BAD_ARGUMENT, std::string(name) + " is NULL");
    // No version of a structure is this large: the field was never set.
    constexpr size_t impossible = 4096;
    if (given->struct_size < kFirstSize<T> || given->struct_size > impossible) {
        throw Error(DERAIN_BAD_ARGUMENT, std::string(name) + " has struct_size " + std::to_string(given->struct_size),
                    "", std::string("Begin with ") + name + kSetter<T>);
    }
}

// A copy in which fields that the caller did not know have the values of `defaults`.
template <typename T>
T take_struct(const T *given, const T &defaults, const char *name) {
    check_struct(given, name);
    T taken = defaults;
    std::memcpy(&taken, given, std::min(given->struct_size, sizeof(T)));
    return taken;
}

// Write `values` as far as the caller has room; struct_size stays the caller's.
template <typename T>
void give_struct(T *given, const T &values, const char *name) {
    check_struct(given, name);
    const size_t size = given->struct_size;
    std::memcpy(given, &values, std::min(size, sizeof(T)));
    given->struct_size = size;
}

}  // namespace derain

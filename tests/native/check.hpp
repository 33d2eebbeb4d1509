// The smallest test tool that says what failed: CHECK ends the program with the line and the values.
#pragma once

#include <cstdlib>
#include <iostream>
#include <string>

#define CHECK(condition)                                                                \
    do {                                                                                \
        if (!(condition)) {                                                             \
            std::cerr << __FILE__ << ":" << __LINE__ << ": not true: " #condition "\n"; \
            std::exit(1);                                                               \
        }                                                                               \
    } while (false)

#define CHECK_EQUAL(found, expected)                                                                       \
    do {                                                                                                   \
        const auto found_value = (found);                                                                  \
        const auto expected_value = (expected);                                                            \
        if (!(found_value == expected_value)) {                                                            \
            std::cerr << __FILE__ << ":" << __LINE__ << ": " #found " is " << found_value << ", expected " \
                      << expected_value << "\n";                                                           \
            std::exit(1);                                                                                  \
        }                                                                                                  \
    } while (false)

inline bool contains(const std::string &text, const std::string &part) {
    if (text.find(part) != std::string::npos) return true;
    std::cerr << "'" << text << "' does not contain '" << part << "'\n";
    return false;
}

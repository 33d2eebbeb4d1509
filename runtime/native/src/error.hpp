// The one exception inside the library; guard.hpp turns it into a status before it reaches C.
#pragma once

#include <derain.h>

#include <stdexcept>
#include <string>

namespace derain {

// What was found, what was expected and what to do, as derain.errors.DerainError of the Python side writes it.
class Error : public std::runtime_error {
  public:
    Error(derain_status status, const std::string &found, const std::string &expected = "", const std::string &fix = "")
        : std::runtime_error(sentence(found, expected, fix)), status_(status) {}

    derain_status status() const { return status_; }

  private:
    static std::string sentence(const std::string &found, const std::string &expected, const std::string &fix) {
        std::string text = found + ".";
        if (!expected.empty()) text += " Expected " + expected + ".";
        if (!fix.empty()) text += " " + fix + ".";
        return text;
    }

    derain_status status_;
};

}  // namespace derain

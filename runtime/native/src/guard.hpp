// The line between C++ and C: no exception crosses it.
#pragma once

#include "error.hpp"

#include <new>
#include <system_error>

namespace derain {

// Run `action`; what it throws becomes a status and a message.
template <typename Action>
derain_status to_status(Action action, std::string &message) noexcept {
    try {
        try {
            action();
            return DERAIN_OK;
        } catch (const Error &error) {
            message = error.what();
            return error.status();
        } catch (const std::bad_alloc &) {
            message = "There is not enough memory. Use smaller frames, or fewer slots.";
            return DERAIN_NO_MEMORY;
        } catch (const std::system_error &error) {  // of a thread that cannot be started
            message = std::string("The system refuses a resource (") + error.what() + "). Is a limit of threads set?";
            return DERAIN_NO_MEMORY;
        } catch (const std::exception &error) {
            message = std::string("libderain failed unexpectedly (") + error.what() + "). Please report this.";
            return DERAIN_INTERNAL;
        } catch (...) {
            message = "libderain failed unexpectedly. Please report this.";
            return DERAIN_INTERNAL;
        }
    } catch (...) {  // no memory for the message either
        message.clear();
        return DERAIN_NO_MEMORY;
    }
}

}  // namespace derain

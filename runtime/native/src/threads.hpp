// How many CPU threads one inference should use on this machine.
#pragma once

namespace derain {

// Physical cores this process may use, a container's CPU quota included; the rule of the Python runtime. Convolutions
// fill a core's arithmetic units with one thread, so two hyper-threads of a core only compete.
int default_threads();

}  // namespace derain

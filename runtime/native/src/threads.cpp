#include "threads.hpp"

#include <sched.h>
#include <algorithm>
#include <fstream>
#include <set>
#include <string>

namespace derain {
namespace {

// What names the physical core of a CPU: the list of its hyper-threads.
std::string core_of(int cpu) {
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    return std::getline(file, siblings) ? siblings : std::to_string(cpu);
}

// CPUs that a container may use; 0 for no limit. The file holds "max 100000" or "150000 100000" (microseconds).
int quota() {
    std::ifstream file("/sys/fs/cgroup/cpu.max");
    long limit = 0, period = 0;
    if (!(file >> limit >> period) || period <= 0) return 0;
    return static_cast<int>(std::max(1L, limit / period));
}

}  // namespace

int default_threads() {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    std::set<std::string> cores;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) {
        for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
            if (CPU_ISSET(cpu, &cpus)) cores.insert(core_of(cpu));
        }
    }
    const int count = std::max(1, static_cast<int>(cores.size()));
    const int limit = quota();
    return limit > 0 ? std::min(count, limit) : count;
}

}  // namespace derain

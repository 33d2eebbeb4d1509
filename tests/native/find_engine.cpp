// Which engine the library would load on a machine that is not here; test_native_engines.py compares the answers with
// the Python side's.
//
//   find_engine MODEL ENGINE TENSORRT GPU MAJOR MINOR CUDA_MAJOR CUDA_MINOR DRIVER
//
// ENGINE and DRIVER are "" where none is named.
#include "engine_file.hpp"
#include "error.hpp"

#include <cstdlib>
#include <iostream>

int main(int count, char **words) {
    if (count != 10) return 2;
    const derain::Machine machine = {words[3],
                                     words[4],
                                     {std::atoi(words[5]), std::atoi(words[6])},
                                     {std::atoi(words[7]), std::atoi(words[8])},
                                     words[9]};
    const auto log = [](derain_log_level, const std::string &text) { std::cerr << text << "\n"; };
    try {
        const derain::Card card = derain::read_model_card(words[1]);
        const derain::EngineFile found = derain::find_engine(words[1], words[2], card, machine, log);
        std::cout << found.path << "\n" << found.plan.size() << "\n" << found.onnx << "\n";
        return 0;
    } catch (const derain::Error &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}

// The library exports the functions of derain.h and nothing else: another copy of a C++ library in the same process
// must not be mixed with ours.
#include "check.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

int main(int, char **arguments) {
    std::ifstream file(arguments[1], std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    CHECK(bytes.size() > sizeof(ElfW(Ehdr)));
    const auto *header = reinterpret_cast<const ElfW(Ehdr) *>(bytes.data());
    const auto *sections = reinterpret_cast<const ElfW(Shdr) *>(bytes.data() + header->e_shoff);
    std::set<std::string> exported;
    for (int i = 0; i < header->e_shnum; ++i) {
        if (sections[i].sh_type != SHT_DYNSYM) continue;
        const char *names = bytes.data() + sections[sections[i].sh_link].sh_offset;
        const auto *symbols = reinterpret_cast<const ElfW(Sym) *>(bytes.data() + sections[i].sh_offset);
        for (size_t s = 0; s < sections[i].sh_size / sizeof(ElfW(Sym)); ++s) {
            const bool local = ELF64_ST_BIND(symbols[s].st_info) == STB_LOCAL;  // of sections, on some machines
            if (!local && symbols[s].st_shndx != SHN_UNDEF && symbols[s].st_shndx != SHN_ABS)
                exported.insert(names + symbols[s].st_name);
        }
    }
    const std::set<std::string> expected = {
        "derain_backend_name", "derain_close",           "derain_collect",         "derain_frame_init",
        "derain_get_info",     "derain_get_statistics",  "derain_info_init",       "derain_last_error",
        "derain_open",         "derain_options_default", "derain_request_default", "derain_run",
        "derain_run_request",  "derain_statistics_init", "derain_status_name",     "derain_submit",
        "derain_version",      "derain_version_number"};
    for (const std::string &name : exported) {
        if (expected.count(name) == 0) std::cerr << "exported too much: " << name << "\n";
    }
    for (const std::string &name : expected) {
        if (exported.count(name) == 0) std::cerr << "not exported: " << name << "\n";
    }
    CHECK(exported == expected);
}

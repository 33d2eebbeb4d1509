// Loops over the pixels of a row are written plainly, and vectorised by the compiler.
//
// What Linux distributions compile for x86-64 may use SSE2 alone, which cannot take every third byte out of a vector.
// So each such function is compiled a second time, for AVX2, and the loader chooses by the CPU. It has no fused
// multiply-add, so both give the same bits. ARM's base instructions need nothing of the kind.
#pragma once

#ifdef DERAIN_TARGET_CLONES
#define DERAIN_PIXEL_LOOP __attribute__((target_clones("avx2", "default")))
#else
#define DERAIN_PIXEL_LOOP
#endif

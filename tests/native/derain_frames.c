/* Raw frames in any pixel format through libderain, as a C program uses it; test_native_formats.py compares the bytes.
 *
 *   derain_frames MODEL FORMAT COLOUR      each frame: int32 width, int32 height, planes; each result: planes
 */
#include <derain.h>
#include <stdio.h>
#include <stdlib.h>

/* The planes of a frame in one block, without gaps; its size in bytes. */
static size_t place(derain_frame *frame, unsigned char *memory) {
    const size_t width = (size_t)frame->width, height = (size_t)frame->height;
    const size_t half = (width + 1) / 2 * ((height + 1) / 2);
    size_t sizes[3] = {0, 0, 0}, size = 0;
    int plane;
    switch (frame->format) {
        case DERAIN_FORMAT_BGR:
        case DERAIN_FORMAT_RGB: sizes[0] = 3 * width * height; break;
        case DERAIN_FORMAT_BGRA: sizes[0] = 4 * width * height; break;
        case DERAIN_FORMAT_RGB_PLANAR_F32: sizes[0] = sizes[1] = sizes[2] = sizeof(float) * width * height; break;
        default:
            sizes[0] = width * height;
            sizes[1] = frame->format == DERAIN_FORMAT_NV12 ? 2 * half : half;
            sizes[2] = frame->format == DERAIN_FORMAT_NV12 ? 0 : half;
    }
    for (plane = 0; plane < 3; ++plane) {
        frame->plane[plane] = memory + size;
        size += sizes[plane];
    }
    return size;
}

static derain_frame describe(char **arguments, const int32_t sides[2]) {
    derain_frame frame;
    derain_frame_init(&frame, (derain_format)atoi(arguments[2]), sides[0], sides[1]);
    frame.colour = atoi(arguments[3]);
    return frame;
}

int main(int count, char **arguments) {
    derain_model *model = NULL;
    derain_status status = DERAIN_OK;
    int32_t sides[2];
    if (count != 4) return 2;
    status = derain_open(arguments[1], NULL, &model);
    while (status == DERAIN_OK && fread(sides, sizeof(sides), 1, stdin) == 1) {
        derain_frame rainy = describe(arguments, sides), clean = rainy;
        unsigned char *memory = malloc((size_t)32 * (size_t)sides[0] * (size_t)sides[1] + 64);
        const size_t size = memory == NULL ? 0 : place(&rainy, memory);
        if (size == 0 || fread(memory, size, 1, stdin) != 1) return 3;
        place(&clean, memory + size);
        status = derain_run(model, &rainy, &clean);
        if (status == DERAIN_OK && fwrite(memory + size, size, 1, stdout) != 1) return 3;
        free(memory);
    }
    if (status != DERAIN_OK) fprintf(stderr, "%s\n", derain_last_error());
    derain_close(model);
    return status == DERAIN_OK ? 0 : 1;
}

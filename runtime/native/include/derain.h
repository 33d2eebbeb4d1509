/* derain.h: remove rain from camera frames, in C.
 *
 *     derain_model *model = NULL;
 *     if (derain_open("edge.onnx", NULL, &model) != DERAIN_OK) {
 *         fprintf(stderr, "%s\n", derain_last_error());
 *         return 1;
 *     }
 *     derain_frame rainy, clean;
 *     derain_frame_init(&rainy, DERAIN_FORMAT_NV12, 1280, 720);
 *     rainy.plane[0] = y;  rainy.stride[0] = 1280;
 *     rainy.plane[1] = uv; rainy.stride[1] = 1280;
 *     derain_frame_init(&clean, DERAIN_FORMAT_NV12, 1280, 720);
 *     clean.plane[0] = ...
 *     if (derain_run(model, &rainy, &clean) != DERAIN_OK) ...
 *     derain_close(model);
 *
 * The rules, which hold for every function:
 *  - What you allocate is yours; what the library allocates is given back with derain_close. No frame is ever copied
 *    to be kept: planes must stay valid until the call returns, or until derain_collect for derain_submit.
 *  - Every failure returns a status. derain_last_error() then says, for the calling thread, what was found and what to
 *    do about it. No C++ exception leaves the library.
 *  - Each function says what it is for threads. "Thread safe" means: from any thread, and from several at once, on the
 *    same model too. Calls on a CPU run one after the other, each on all threads of the model, which is the fastest
 *    order there. A structure of the caller belongs to one call at a time.
 *  - Structures begin with struct_size, which their *_default or *_init function sets together with all other fields.
 *    Later versions only append fields, so a program built with this header goes on working with a newer library.
 *    Enumerations keep their numbers and may grow.
 */
#ifndef DERAIN_H
#define DERAIN_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define DERAIN_API __attribute__((visibility("default")))
#else
#define DERAIN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ------------------------------------------------------------------------------------------------- */

typedef enum derain_status {
    DERAIN_OK = 0,
    DERAIN_BAD_ARGUMENT = 1, /* the call itself is wrong: NULL, an unknown enum value, a struct_size never set */
    DERAIN_BAD_MODEL = 2,    /* the model file is missing, damaged, without a card, or not a whole deraining model */
    DERAIN_BAD_FRAME = 3,    /* a frame's size, strides or planes cannot be used, or the model does not take its size */
    DERAIN_BACKEND = 4,      /* the backend is not in this build, refused the model, or failed while running */
    DERAIN_NO_MEMORY = 5,
    DERAIN_FULL = 6,    /* derain_submit: all slots are taken; collect first */
    DERAIN_EMPTY = 7,   /* derain_collect: nothing was submitted */
    DERAIN_TIMEOUT = 8, /* derain_collect: the oldest frame is not done yet */
    DERAIN_INTERNAL = 9 /* a defect of the library; please report the message */
} derain_status;

/* What went wrong in this thread's latest failed call, in English, ready to show. Never NULL; valid until the thread's
 * next failing call. A call that succeeds leaves it alone. Thread safe: each thread has a text of its own. */
DERAIN_API const char *derain_last_error(void);

/* "DERAIN_BAD_FRAME" and so on; "unknown" for any other number. Thread safe. */
DERAIN_API const char *derain_status_name(derain_status status);

/* ---- Version ------------------------------------------------------------------------------------------------ */

/* "0.1.0", of the library that is loaded. Thread safe. */
DERAIN_API const char *derain_version(void);

/* The same as 10000 * major + 100 * minor + patch, to ask whether the library that is loaded knows a newer field or
 * function: an older one ignores the fields that it does not know. Thread safe. */
DERAIN_API int32_t derain_version_number(void);

/* The name of the index-th backend in this build, best first ("tensorrt", "openvino", "onnxruntime"); NULL past the
 * last one. Thread safe. */
DERAIN_API const char *derain_backend_name(size_t index);

/* ---- Opening a model ---------------------------------------------------------------------------------------- */

typedef struct derain_model derain_model;

typedef enum derain_log_level { DERAIN_LOG_ERROR = 0, DERAIN_LOG_WARNING = 1, DERAIN_LOG_INFO = 2 } derain_log_level;

/* Called with one line without a line break; from any thread that uses the model, but never from two at once. It must
 * not call functions of the model. */
typedef void (*derain_log_function)(derain_log_level level, const char *message, void *user_data);

typedef struct derain_options {
    size_t struct_size;
    const char *backend;     /* a backend's name; NULL: the best one in this build that this machine can run */
    int32_t threads;         /* CPU threads of one inference; 0: the physical cores this process may use */
    int32_t slots;           /* frames that may be submitted and not yet collected, 1 to 16; 0: 2 */
    const char *engine;      /* TensorRT: the engine file; NULL: beside the model (.engine), or in derain's cache */
    derain_log_function log; /* NULL: silent */
    void *log_user_data;
} derain_options;

/* What an open without options uses. Thread safe. */
DERAIN_API void derain_options_default(derain_options *options);

/* Open a file written by `derain export` or `derain calibrate`, or an engine of `derain build`. The attention part of a
 * model (`--part attention`) gives rain maps only. `path` is as the system takes it (UTF-8 on most). `options` may be
 * NULL, and neither it nor its texts are needed afterwards. On failure *model is NULL. Thread safe; takes from a tenth
 * of a second to minutes. */
DERAIN_API derain_status derain_open(const char *path, const derain_options *options, derain_model **model);

/* Wait until no submitted frame is being worked on, then free everything. Frames not yet begun are dropped. NULL is
 * fine. Not thread safe: it must be the last call on this model, after those of other threads have returned. */
DERAIN_API void derain_close(derain_model *model);

/* What is known about an open model. The texts live until derain_close. */
typedef struct derain_info {
    size_t struct_size;
    const char *name;      /* of the recipe, such as "edge" */
    const char *system;    /* such as "acgf" */
    const char *precision; /* "float32", "float16", "float8" or "int8" */
    const char *backend;   /* such as "openvino" */
    const char *device;    /* the engine, its version and the device, for people to read */
    const char *card;      /* the whole model card, JSON */
    int32_t threads;
    int32_t minimum;      /* smallest width and height, pixels */
    int32_t fixed_width;  /* the only width it takes; 0: any */
    int32_t fixed_height; /* the only height it takes; 0: any */
    double rain_half; /* mean of a rain map in an ordinary shower (of the median of its 6x6 cells); rain begins at half
                         of it */
} derain_info;

/* Thread safe, both. */
DERAIN_API void derain_info_init(derain_info *info);
DERAIN_API derain_status derain_get_info(const derain_model *model, derain_info *info);

/* ---- Frames ------------------------------------------------------------------------------------------------- */

typedef enum derain_format {
    DERAIN_FORMAT_BGR = 1,           /* 8 bits each, 3 bytes a pixel */
    DERAIN_FORMAT_RGB = 2,           /* 8 bits each, 3 bytes a pixel */
    DERAIN_FORMAT_BGRA = 3,          /* 4 bytes a pixel; the 4th is copied from a BGRA input, else 255 */
    DERAIN_FORMAT_NV12 = 4,          /* planes Y, then U and V interleaved at half width and height (rounded up) */
    DERAIN_FORMAT_I420 = 5,          /* planes Y, U, V; U and V at half width and height (rounded up) */
    DERAIN_FORMAT_RGB_PLANAR_F32 = 6 /* float planes R, G, B in [0, 1] */
} derain_format;

/* What the Y, U, V of NV12 and I420 mean. Limited: Y in 16..235, U and V in 16..240; full: all in 0..255. */
typedef enum derain_colour {
    DERAIN_COLOUR_BT601_LIMITED = 0,
    DERAIN_COLOUR_BT601_FULL = 1,
    DERAIN_COLOUR_BT709_LIMITED = 2,
    DERAIN_COLOUR_BT709_FULL = 3
} derain_colour;

typedef struct derain_frame {
    size_t struct_size;
    int32_t format; /* a derain_format */
    int32_t colour; /* a derain_colour; read for NV12 and I420 only */
    int32_t width;  /* pixels */
    int32_t height;
    void *plane[3];    /* an input's planes are only read */
    size_t stride[3];  /* bytes from one row to the next; 0: rows follow each other without a gap */
    int64_t timestamp; /* any unit; the library copies the input's to the output */
} derain_frame;

/* A frame of that format and size, of BT.601 limited range, without planes yet. Thread safe. */
DERAIN_API void derain_frame_init(derain_frame *frame, derain_format format, int32_t width, int32_t height);

/* ---- Deraining ---------------------------------------------------------------------------------------------- */

/* Derain `rainy` into `clean`, which has the same size and any format. Both may be the same memory. The fastest way is
 * a BGR frame without gaps between its rows (NV12, for a model exported with `--frames nv12`), which the network then
 * reads and writes where it is. After a failure nothing is known of what `clean` holds. Thread safe. */
DERAIN_API derain_status derain_run(derain_model *model, const derain_frame *rainy, derain_frame *clean);

/* The same, with everything that can be asked for. */
typedef struct derain_request {
    size_t struct_size;
    const derain_frame *rainy;
    derain_frame *clean; /* NULL: only the rain map is wanted; so it must be for the attention part of a model */
    float *rain;         /* NULL, or room for width * height floats in [0, 1]: the rain map, where 1 is rain */
    size_t rain_stride;  /* bytes from one row of the map to the next; 0: no gap */
    float strength;      /* 1: the network's result; 0: the input; between: that much of the result; initially 1 */
    float overlay;       /* 0..1: paint the rain map in red over the result, to see what counts as rain; initially 0 */
    void *user_data;     /* handed back by derain_collect */
} derain_request;

/* Nothing asked for yet, strength 1, overlay 0. Thread safe. */
DERAIN_API void derain_request_default(derain_request *request);

/* Thread safe. */
DERAIN_API derain_status derain_run_request(derain_model *model, const derain_request *request);

/* Hand over a frame and return at once; DERAIN_FULL if all slots are taken. The request and its frame structures are
 * copied and may go away; the planes and the rain map must stay until the frame was collected or the model closed.
 * Thread safe. */
DERAIN_API derain_status derain_submit(derain_model *model, const derain_request *request);

/* Wait for the oldest submitted frame, at most timeout_ms milliseconds (negative: without end). Frames come back in the
 * order of their submission. The status is that of the frame itself, unless it is DERAIN_EMPTY or DERAIN_TIMEOUT.
 * *user_data (if not NULL) becomes the request's, or NULL when no frame came back. Thread safe: each frame comes back
 * once, to one of the threads that wait. */
DERAIN_API derain_status derain_collect(derain_model *model, int32_t timeout_ms, void **user_data);

/* ---- Statistics --------------------------------------------------------------------------------------------- */

typedef struct derain_statistics {
    size_t struct_size;
    uint64_t frames;          /* derained since derain_open */
    double seconds;           /* spent on them, frame in to frame out, without waiting for a free slot */
    double inference_seconds; /* of which in the network itself */
} derain_statistics;

/* Thread safe, both. */
DERAIN_API void derain_statistics_init(derain_statistics *statistics);
DERAIN_API derain_status derain_get_statistics(derain_model *model, derain_statistics *statistics);

#ifdef __cplusplus
}
#endif

#endif

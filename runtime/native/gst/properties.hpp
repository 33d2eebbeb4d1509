// The properties of the element `derain`.
#pragma once

#include <glib-object.h>

enum Property {
    kModel = 1,
    kBackend,
    kEngine,
    kThreads,
    kStrength,
    kOverlay,
    kGate,
    kGateInterval,
    kGateModel,
    kLatency,
    kFramesDerained,
    kFramesPassed
};

void install_properties(GObjectClass *object_class);

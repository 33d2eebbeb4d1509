"""An OpenCV camera loop with derain in it. Run: python opencv_loop.py [camera number or file] ; q ends it."""

import sys

import cv2

import derain

camera = cv2.VideoCapture(int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else (sys.argv[1:] or [0])[0])
with derain.load("nano") as model:
    while True:
        grabbed, frame = camera.read()
        if not grabbed:
            break
        clean = model(frame)  # uint8 (H, W, 3) BGR in, the same out; `frame` is not changed
        cv2.imshow("derained", clean)
        if cv2.waitKey(1) == ord("q"):
            break
camera.release()

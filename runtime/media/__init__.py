"""Pictures, folders of pictures and video files as sources and sinks of frames."""

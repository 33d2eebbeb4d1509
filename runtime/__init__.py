"""Running models: backends, frames in and out, pictures, folders and videos."""

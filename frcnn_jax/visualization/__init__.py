"""Pictures for a person: detections on an image, and the curves of a run."""

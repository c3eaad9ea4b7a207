"""RetinaNet and its parts: anchors, matching, losses, head, detections."""

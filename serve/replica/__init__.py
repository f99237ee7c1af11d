"""A replica: networks, dynamic batching, and the router to it."""

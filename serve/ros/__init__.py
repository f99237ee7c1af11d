"""A ROS 2 node: images in, metric depth out. Only `ros_interface.py` imports ROS, when the node starts."""

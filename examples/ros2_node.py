"""A ROS 2 node: sensor_msgs/Image in, derained sensor_msgs/Image and std_msgs/Float32 rain intensity out.

NOT RUN: no ROS 2 was at hand when this was written. Needs rclpy, cv_bridge and derain in one environment.
Run: python3 ros2_node.py --ros-args -r image:=/camera/image_raw
"""

import rclpy
from cv_bridge import CvBridge
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Float32

import derain
from derain.rain_intensity import intensity

# One frame deep and best effort: while one is derained the next overtakes those between.
NEWEST = QoSProfile(depth=1, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


class Derain(Node):
    """Derains what arrives on `image`."""

    def __init__(self) -> None:
        super().__init__("derain")
        name = self.declare_parameter("model", "nano").value
        self._model = derain.load(name)
        self._bridge = CvBridge()
        self._image = self.create_publisher(Image, "image_derained", NEWEST)
        self._rain = self.create_publisher(Float32, "rain_intensity", NEWEST)
        self.create_subscription(Image, "image", self._received, NEWEST)

    def _received(self, message: Image) -> None:
        frame = self._bridge.imgmsg_to_cv2(message, "bgr8")
        clean, rain = self._model(frame, attention=True)
        result = self._bridge.cv2_to_imgmsg(clean, "bgr8", header=message.header)
        self._image.publish(result)
        self._rain.publish(Float32(data=intensity(rain, self._model.card.rain_half)))


def main() -> None:
    """Spin until shut down."""
    rclpy.init()
    node = Derain()
    try:
        rclpy.spin(node)
    finally:
        node.destroy_node()
        rclpy.shutdown()


if __name__ == "__main__":
    main()

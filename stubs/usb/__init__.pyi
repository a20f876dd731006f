from usb import core as core
from usb import util as util

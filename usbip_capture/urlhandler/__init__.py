"""Handlers of pyserial's URLs: `serial.protocol_handler_packages.append("usbip_capture.urlhandler")`.

That is done by itself where the package is installed, see `registration`.
"""

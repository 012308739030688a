"""A camera on loopback: GStreamer's RTSP server, run by the system's Python. Prints its port, then serves until killed.

Usage: rtsp_server.py PORT CODEC [locked], with 0 for a free port. The picture at /live is SMPTE's test card: of seven
bars the last two are red and blue, and below them is noise, so that no two frames are alike. `locked` asks for a user
and a password.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions are set

CODECS = {
    "jpeg": "jpegenc quality=95 ! rtpjpegpay name=pay0 pt=96",
    "vp8": "vp8enc deadline=1 keyframe-max-dist=25 target-bitrate=2000000 ! rtpvp8pay name=pay0 pt=96",
    "h264": "openh264enc gop-size=25 bitrate=2000000 ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1",
}


def picture(codec):
    caps = "video/x-raw,format=I420,width=168,height=96,framerate=25/1"
    return f"( videotestsrc is-live=true pattern=smpte ! {caps} ! {CODECS[codec]} )"


def lock(server, factory):
    """Ask for the user `operator` with the password `hunter2`."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "operator")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("operator", "hunter2"), token)
    server.set_auth(auth)
    role = "operator, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
    factory.add_role_from_structure(Gst.Structure.new_from_string(role))


def main():
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(picture(sys.argv[2]))
    factory.set_shared(True)
    if "locked" in sys.argv:
        lock(server, factory)
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()

"""What runs on the other machine: POSIX shell, sent to `sh -s`, so that the login shell there does not matter. Pure.

Each ends when its standard input does, which is when ssh ends: a capture of a quiet device would not notice otherwise.

Ref: libpcap, pcap-usb-linux.c and gencode.c: usbmon's packets are filtered by `link[OFFSET]` only
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

#: A line before what counts: login scripts may print, too.
MARKER = "usbip-capture: usbmon"
#: Exit status: the device is not there any more under this number; tcpdump has ended by itself; our input has.
GONE, TOOL_ENDED, STOPPED = 80, 81, 82
TOOLS = ("tcpdump", "dumpcap")

# `$$` is the script's own process, in a subshell too. Standard input of what runs in the background is /dev/null, so
# the script keeps its own as 3.
_PATH = 'PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin"\n'
_BEGIN = f"""\
{_PATH}exec 3<&0
{{ cat; kill "$$"; }} <&3 >/dev/null 2>&1 &
"""

_SURVEY = """\
devices=/sys/bus/usb/devices
shown() {
  if [ -r "$2" ]; then printf '%s %s\\n' "$1" "$(tr '\\n\\r' '  ' <"$2")"; fi
}
printf '%s\\n' "$marker"
while [ -n "$1" ] && [ ! -r "$devices/$1/devnum" ]; do sleep 1; done
printf 'system %s\\n' "$(uname -s)"
for tool in tcpdump dumpcap; do
  if command -v "$tool" >/dev/null 2>&1; then printf 'tool %s\\n' "$tool"; fi
done
if [ -d "$devices" ]; then echo usb; fi
as_root=
if sudo -n sh -c : </dev/null >/dev/null 2>&1; then as_root=yes; fi
for file in /dev/usbmon*; do
  [ -e "$file" ] || continue
  if [ -r "$file" ]; then access=user; elif [ -n "$as_root" ]; then access=root; else access=none; fi
  printf 'usbmon %s %s\\n' "${file#/dev/usbmon}" "$access"
done
here=$(set -- $SSH_CONNECTION; printf '%s' "${3%%\\%*}")
for link in /sys/class/net/*/device; do
  name=${link%/device}
  case "$(ip -o addr show dev "${name##*/}" 2>/dev/null)" in
  *" $here/"*) if [ -n "$here" ]; then printf 'carrier %s\\n' "$(readlink -f "$link")"; fi ;;
  esac
done
for folder in "$devices"/*; do
  [ -r "$folder/devnum" ] || continue
  printf 'device %s\\n' "${folder##*/}"
  for name in busnum devnum speed idVendor idProduct bcdDevice bDeviceClass bDeviceSubClass bDeviceProtocol \\
    bConfigurationValue bNumConfigurations bNumInterfaces manufacturer product serial; do
    shown "$name" "$folder/$name"
  done
  if [ -r "$folder/descriptors" ]; then
    printf 'descriptors %s\\n' "$(od -An -v -tx1 "$folder/descriptors" 2>/dev/null | tr -d ' \\n')"
  fi
done
echo end
"""

_CAPTURE = """\
file=$1 devnum=$2 marker=$3
shift 3
reason=ended
printf '%s\\n' "$marker"
"$@" </dev/null 3<&- &
tool=$!
trap 'reason=stopped; kill "$tool" 2>/dev/null' TERM HUP
trap 'reason=gone; kill "$tool" 2>/dev/null' USR1
{
  while { read -r now <"$file"; } 2>/dev/null && [ "$now" = "$devnum" ]; do sleep 1; done
  kill -USR1 "$$"
} </dev/null >/dev/null 2>&1 3<&- &
watcher=$!
wait "$tool"
if [ "$reason" != ended ]; then wait "$tool"; fi
kill "$watcher" 2>/dev/null
case $reason in
gone) exit {gone} ;;
stopped) exit {stopped} ;;
esac
exit {ended}
"""


def survey_script(awaited: str = "") -> str:
    """Prints MARKER, then, once the device `awaited` is there, what this machine has, a line for each."""
    return _whole(f"set -- {shlex.quote(awaited)}\nmarker={shlex.quote(MARKER)}\n{_BEGIN}{_SURVEY}")


def capture_script(busid: str, busnum: int, devnum: int, tool: str, snaplen: int, *, as_root: bool) -> str:
    """Prints MARKER, then a capture of this device's URBs, until its device number changes: exit status GONE."""
    words = [f"/sys/bus/usb/devices/{busid}/devnum", str(devnum), MARKER, *_tool(tool, busnum, devnum, snaplen)]
    body = _BEGIN + _CAPTURE
    for name, status in (("{gone}", GONE), ("{ended}", TOOL_ENDED), ("{stopped}", STOPPED)):
        body = body.replace(name, str(status))
    command = shlex.join([*(("sudo", "-n") if as_root else ()), "sh", "-c", body, "sh", *words])
    return _whole(f"{_PATH}{command}")


def _tool(tool: str, busnum: int, devnum: int, snaplen: int) -> Sequence[str]:
    """The filter runs there, so that the traffic of a network adapter on this bus is not sent through itself."""
    interface, wanted = f"usbmon{busnum}", f"link[11] = {devnum}"
    if tool == "tcpdump":
        return tool, "-i", interface, "-n", "-U", "-s", str(snaplen), "-w", "-", wanted
    return tool, "-i", interface, "-q", "-P", "-s", str(snaplen), "-w", "-", "-f", wanted


def _whole(script: str) -> str:
    """Read to its end before it begins: the shell must not look for more of it in what is its standard input."""
    return f"{{\n{script}\nexit\n}}\n"

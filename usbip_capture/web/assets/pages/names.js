// How pages call things.

/** What a device calls itself, else what it is. */
export const nameOf = (device) => device.product || `${device.class_name || "Device"} ${device.vid_pid}`;

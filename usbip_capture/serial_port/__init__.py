"""Serial ports of remote devices, as sessions: what pyserial's class, SerialClient and the terminal share."""

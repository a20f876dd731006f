"""Who may have which device: rules of clients and devices, decided here, asked about and kept elsewhere. Pure."""

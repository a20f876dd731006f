class ProxyManager:
    @classmethod
    def get_host_and_port(cls, res: object, *, default_port: int | None = None) -> tuple[str, int]: ...

proxymanager: ProxyManager

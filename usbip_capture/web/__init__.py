"""The dashboard of a server: pages in a browser, a REST interface, figures as they change. Imports starlette."""

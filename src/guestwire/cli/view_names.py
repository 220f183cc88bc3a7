"""The commands that show an endpoint's result, with their help. Made by `./dev docs` from the endpoints' records."""

from typing import Final

VIEWS: Final = {
    "df": "Show how full a guest's file systems are; those without a size are in JSON only.",
    "freeze-status": "Say whether a guest's file systems are frozen or thawed.",
    "hostname": "Show a guest's host name.",
    "info": "Show the agent's version, and which commands it has.",
    "ip": "Show a guest's network interfaces and addresses.",
    "osinfo": "Show which operating system a guest runs.",
    "ping": "Check that a guest's agent answers.",
    "time": "Show a guest's clock. JSON: nanoseconds since the epoch.",
    "timezone": "Show a guest's time zone.",
    "users": "Show who is logged in to a guest.",
    "vcpus": "Show a guest's processors.",
}

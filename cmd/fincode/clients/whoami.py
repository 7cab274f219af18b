"""Calls FinCode through the proxy with Python's standard library.

FINCODE_PROXY=http://127.0.0.1:8080 FINCODE_PROXY_KEY_FILE=key python3 whoami.py
"""
import json
import os
import urllib.request

base_url = os.environ["FINCODE_PROXY"]
with open(os.environ["FINCODE_PROXY_KEY_FILE"], encoding="ascii") as file:
    key = file.read().strip()

request = urllib.request.Request(
    base_url + "/whoami", headers={"Authorization": "Bearer " + key}
)
with urllib.request.urlopen(request, timeout=60) as response:
    print(json.dumps(json.load(response)["data"], indent=2))

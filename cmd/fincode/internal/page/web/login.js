"use strict";
// A link with #key=… logs in. Browsers do not send what follows the #, and it leaves the
// address bar and the history at once.
const key = new URLSearchParams(location.hash.slice(1)).get("key");
if (key) {
  history.replaceState(null, "", "/-/");
  document.getElementById("key").value = key;
  document.getElementById("login").submit();
}

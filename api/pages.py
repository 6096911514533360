"""The two pages that mailed links lead to. No dashboard: each is one form that calls the API with the link's token.

The token comes after `#`, so no server and no log ever saw it, and a mail scanner that opens the link uses up nothing.
"""

from __future__ import annotations

from string import Template

from fastapi.responses import HTMLResponse

from engine.model import ids

_PAGE = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style nonce="$nonce">
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 15vh auto; padding: 0 1rem }
  input, button { font: inherit; padding: .5rem; width: 100%; box-sizing: border-box; margin: .4rem 0 }
</style>
<h1>$title</h1>
<form>$fields<button>$action</button></form>
<p role="status"></p>
<script nonce="$nonce">
  const form = document.forms[0], said = document.querySelector("p");
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) { form.hidden = true; said.textContent = "This link is incomplete: open it from the mail again."; }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = Object.assign(Object.fromEntries(new FormData(form)), { token });
    const answer = await fetch(location.pathname, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    const told = await answer.json();
    said.textContent = answer.ok ? told.message : told.error.message;
    form.hidden = answer.ok;
  });
</script>
"""
)
_PASSWORD = '<input type="password" name="password" autocomplete="new-password" minlength="12" required autofocus>'


def verify_email() -> HTMLResponse:
    """Asks for one click: opening the link alone confirms nothing."""
    return _page(title="Confirm your e-mail address", fields="", action="Confirm")


def reset_password() -> HTMLResponse:
    """Asks for the new password."""
    return _page(title="Set a new password", fields=_PASSWORD, action="Set the password")


def _page(**parts: str) -> HTMLResponse:
    nonce = ids.random_text(26)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    return HTMLResponse(_PAGE.substitute(nonce=nonce, **parts), headers=headers)

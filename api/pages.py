"""The pages that mailed links lead to. No dashboard: each is one form that calls the API with the link's token.

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
<form>$fields<button value="signup">$action</button></form>
<p role="status"></p>
<script nonce="$nonce">
  const form = document.forms[0], said = document.querySelector("p");
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) { form.hidden = true; said.textContent = "This link is incomplete: open it from the mail again."; }
  const send = async (path, body, headers = {}) => {
    const answer = await fetch(path, {
      method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body),
    });
    return [answer, await answer.json()];
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = Object.fromEntries(new FormData(form));
    const [answer, told] = await ($submit)(given, event.submitter.value);
    said.textContent = answer.ok ? told.message ?? "Done." : told.error.message;
    form.hidden = answer.ok;
  });
</script>
"""
)
_SEND_HERE = "given => send(location.pathname, { ...given, token })"
_LOG_IN_AND_JOIN = """async (given, way) => {
      const [entered, refusal] = await send("/auth/" + way, way === "signup" ? { name: "", ...given } : given);
      if (!entered.ok) return [entered, refusal];
      const session = await (await fetch("/auth/session")).json();
      if (!session.csrf_token) return [{}, { error: { message: "Confirm your address first: a mail is on its way." } }];
      const [joined, org] = await send("$accept", { token }, { "X-CSRF-Token": session.csrf_token });
      return [joined, joined.ok ? { message: "You belong to " + org.name + " now." } : org];
    }"""
_WHO = (
    '<input type="email" name="email" placeholder="e-mail address" autocomplete="username" required autofocus>'
    '<input type="password" name="password" placeholder="password" autocomplete="current-password" required>'
    '<button value="login">Log in and join</button>'
)
_PASSWORD = '<input type="password" name="password" autocomplete="new-password" minlength="12" required autofocus>'


def verify_email() -> HTMLResponse:
    """Asks for one click: opening the link alone confirms nothing."""
    return _page(title="Confirm your e-mail address", fields="", action="Confirm", submit=_SEND_HERE)


def reset_password() -> HTMLResponse:
    """Asks for the new password."""
    return _page(title="Set a new password", fields=_PASSWORD, action="Set the password", submit=_SEND_HERE)


def accept_invitation(accept_path: str) -> HTMLResponse:
    """Asks who is joining: an account that exists, or a new one."""
    submit = _LOG_IN_AND_JOIN.replace("$accept", accept_path)
    return _page(title="Join an organisation", fields=_WHO, action="Make an account and join", submit=submit)


def _page(**parts: str) -> HTMLResponse:
    nonce = ids.random_text(26)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
    return HTMLResponse(_PAGE.substitute(nonce=nonce, **parts), headers=headers)

"""The HTML routes: the page, the account, the API's description, the privacy policy, signing in."""

"""Joins the parts: the only room that knows every other one, and where a start's side effects are."""

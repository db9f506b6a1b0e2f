/**
 * Where the router itself runs as a Hugging Face Space, huggingface.co shows its page in a frame. Nobody can sign in
 * there: the provider's pages refuse to be framed, and no cookie of a tab reaches the frame, nor any storage by which
 * the one could tell the other. So the frame offers a tab of its own in place of the sign-in, and leaves it at that.
 * @module
 */

/** Shows what is for a frame (`data-framed="yes"`) or for a tab (`"no"`), and hides the other. */
export function fitFrame() {
  const here = window.parent === window ? "no" : "yes";
  for (const element of document.querySelectorAll("[data-framed]")) {
    if (element instanceof HTMLElement) element.hidden = element.dataset.framed !== here;
  }
}

/* The search runs in a web worker, and browsers allow none on pages that were opened as files. There, a hidden frame
 * takes the worker's place: it loads the same script, and messages go between the two windows. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inner = this.frame.contentDocument;
      inner.open();
      inner.write(
        "<script>" +
          "postMessage = (data) => parent.dispatchEvent(new parent.MessageEvent('divcon-worker', { data }));" +
          "importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((done, failed) => {" +
          "  const script = document.createElement('script');" +
          "  script.src = url; script.onload = done; script.onerror = failed; document.body.appendChild(script);" +
          "})), Promise.resolve());" +
          "</scr" + "ipt><body></body>"
      );
      inner.close();
      this.ready = new Promise((done, failed) => {
        const script = inner.createElement("script");
        script.src = new URL(url, document.baseURI).href;
        script.onload = done;
        script.onerror = failed;
        inner.body.appendChild(script);
      });
      window.addEventListener("divcon-worker", ({ data }) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      });
    }
    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      );
    }
    terminate() {
      this.frame.remove();
    }
  };
}

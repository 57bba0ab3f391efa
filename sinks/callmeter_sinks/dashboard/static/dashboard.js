// Starts a page: charts, panels that come later, the filter form, live figures.
import { drawAll } from "./charts.js";
import { follow } from "./live.js";
import { fill } from "./panels.js";

function tidyForm(form) {
  form.addEventListener("change", (event) => {
    if (!(event.target instanceof HTMLSelectElement)) return;
    if (event.target.name === "range" && event.target.value) {
      for (const name of ["since", "until"]) {
        if (form.elements[name]) form.elements[name].value = "";
      }
    }
    form.requestSubmit();
  });
  // Fields without a value, and the usual range, stay out of the address.
  form.addEventListener("formdata", ({ formData }) => {
    for (const [name, value] of [...formData]) {
      if (!value || (name === "range" && value === "24h")) formData.delete(name);
    }
  });
}

document.querySelectorAll("form.filters").forEach(tidyForm);
follow(document.getElementById("live"));
drawAll(document);
fill(document);

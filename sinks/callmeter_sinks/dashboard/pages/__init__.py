"""The pages, one module each: a view of the store becomes what a template is filled with."""

"""The resources of the HTTP interface, one file each: values in, a reply out."""

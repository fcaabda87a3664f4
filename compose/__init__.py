"""How it is put together: the only place, with ctl, that names concrete classes."""

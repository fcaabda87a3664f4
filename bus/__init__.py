"""The published language of Signalbox: resources, events, subjects, ports and adapters."""

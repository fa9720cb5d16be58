"""Localization: the box of an object whose class a classifier tells (Appendix C)."""

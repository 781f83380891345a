"""Departments: how many students each has, and their CGPA, as numbers and as a chart."""
